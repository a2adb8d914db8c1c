"""Training the parity network: data, objectives, consensus panel and loop (extra ``train``)."""
