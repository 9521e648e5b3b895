"""The networks that come with videosr: ONNX files in deployment form, their weights and their cards."""
