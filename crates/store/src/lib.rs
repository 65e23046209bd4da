//! doorward store
