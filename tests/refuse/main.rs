//! Bad situations: one clear error each, and nothing lost.
