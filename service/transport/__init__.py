"""How calls arrive and answers leave: gRPC and REST servicers, and what stands around every call."""
