//! The binary: routes, pages, proxy, commands, jobs.

mod assemble;
pub mod cli;
pub mod config;
mod cutover;
pub mod demo;
pub mod docs;
pub mod http;
mod idle;
mod jobs;
mod license;
pub mod lifecycle;
pub mod listener;
mod local_license;
pub mod pages;
pub mod proxy;
pub mod shared;
pub mod telemetry;
