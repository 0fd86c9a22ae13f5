"""Teachers of other kinds: what makes a ``BridgeModel`` of them, and how they are guided.

Imports nothing until asked: each module here names what it needs.
"""
