"""The hub's own API, ``/api/v1``: one file per resource, each a tuple ``ROUTES`` of operations (see ``web.operation``)."""
