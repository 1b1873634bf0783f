//! What commands print, compared whole.
