"""Find, check, execute and repeat notebooks, and report their results.

A module imports only from modules listed before it: `process`, `notebooks`, `copies`, `parameters`, `batch`,
`assignments`, `pages`, `worker`, `cluster`, `sweep`, `report`, `errors`, `cli`. Only `parameters` knows about networks.
"""
