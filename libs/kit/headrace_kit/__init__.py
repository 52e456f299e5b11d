"""What every headrace service stands on: event store, log, consumers, objects, RPC chassis, settings, testing."""
