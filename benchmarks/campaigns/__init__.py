"""Break things on purpose, and count what came out right: damaged records, kills, signals, wrong suites, faulty judges."""
