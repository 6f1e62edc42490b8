"""What runs beside the learner's code. The judge trusts nothing that comes out of here.

This folder is loaded in the worker process under the name ``bertlearn_worker`` and imports
nothing of bertlearn except, when asked for, the scratch copy that the judge has prepared.
"""
