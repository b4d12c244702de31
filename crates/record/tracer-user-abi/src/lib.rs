//! The in-process tracer behind LTTng-UST's provider ABI.
