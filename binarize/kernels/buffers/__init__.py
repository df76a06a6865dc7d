"""What is checked of tensors before native code reads their memory."""
