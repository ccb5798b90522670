"""What tests share: the system under test, both transports, emulators, and short forms of calls."""
