//! What must outlive a connection.
