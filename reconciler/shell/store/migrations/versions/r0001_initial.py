"""The first schema.

Written out and not taken from schema.py: a revision says what the schema was, however schema.py goes on.
"""
