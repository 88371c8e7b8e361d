//! Appends.
