//! The whole system under test: a real server, real gateways, simulated ECUs, and clients written by others.
