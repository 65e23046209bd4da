//! What operators see: logs, metrics, audit of decisions. Nothing here can change a verdict.

pub mod audit;
pub(crate) mod issuers;
pub mod logs;
pub mod methods;
pub mod metrics;
pub mod observer;

pub use methods::Methods;
pub use metrics::Metrics;
pub use observer::Observer;
