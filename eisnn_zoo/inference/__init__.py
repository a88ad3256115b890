"""From pictures to answers: reading inputs, folded and integer networks, early exit, ONNX, and one interface for all of them."""
