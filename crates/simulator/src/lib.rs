//! The scripted engine that plays a model, and says so.
