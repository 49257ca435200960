"""A store in MongoDB, which the nodes of a fleet may share."""
