//! Manifests and safetensors files: what is refused, and how what is accepted lies.
