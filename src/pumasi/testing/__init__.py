"""The test kit that ships with Pumasi: conformance suites and controllable stand-ins. Only tests import it."""
