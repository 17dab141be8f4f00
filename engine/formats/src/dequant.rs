//! CPU dequantisation.
