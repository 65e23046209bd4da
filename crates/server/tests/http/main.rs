//! Black-box tests over real sockets. One binary: a file per subject.

mod door;
mod proxy;
mod smuggling;
