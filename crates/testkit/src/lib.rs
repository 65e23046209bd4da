//! doorward testkit
