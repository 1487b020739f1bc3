//! Why the edge could not start. What goes wrong with one client is no error of the edge: `reply` answers it.

use std::io;
use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the address {address} is taken; choose another by `server.{setting}` in the config or by `--{flag}`")]
    Taken { address: SocketAddr, setting: &'static str, flag: &'static str },
    #[error("cannot listen on {address} (`server.{setting}` in the config, or `--{flag}`)")]
    Bind { address: SocketAddr, setting: &'static str, flag: &'static str, source: io::Error },
    #[error("a request came by a way on which nobody asks who sends it")]
    NoCaller,
    #[error("the system gives no random bytes")]
    Random { source: getrandom::Error },
}
