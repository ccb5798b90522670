"""Strict emulators of providers' HTTP APIs, on real sockets."""
