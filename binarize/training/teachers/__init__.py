"""The float model beside the binary one."""
