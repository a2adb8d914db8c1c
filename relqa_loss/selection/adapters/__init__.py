"""Selection inside training frameworks; import the module of yours.

``lightning``, ``transformers``, ``ignite`` and ``accelerate`` each need their framework:
``pip install 'relqa-loss[adapters]'``.
"""
