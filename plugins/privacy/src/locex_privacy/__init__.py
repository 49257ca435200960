"""Privacy mechanisms for locex: what leaves the node is protected."""
