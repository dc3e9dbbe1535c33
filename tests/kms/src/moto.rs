//! moto: AWS KMS with authenticated encryption, for whoever asks.

use std::process::Command;

use crate::install::installed;
use crate::ministack::KeyAdmin;
use crate::process::{Ready, Server};

/// A moto on a port of its own. Its keys are gone when it stops.
#[derive(Debug)]
pub struct Moto {
    server: Server,
    keys: KeyAdmin,
}

impl Moto {
    /// Installs and starts it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let program = installed("moto").join("bin/moto_server");
        Self::run(&Command::new(program))
    }

    /// The same with what the AWS KMS API Reference says and moto leaves out: `servers/moto_amended.py` has the list.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn amended() -> Self {
        let mut python = Command::new(installed("moto").join("bin/python"));
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/moto_amended.py"));
        Self::run(&python)
    }

    fn run(program: &Command) -> Self {
        let server = Server::start("moto", Ready::Http("/moto-api/"), |place| {
            let mut command = Command::new(program.get_program());
            command.args(program.get_args()).args(["-H", "127.0.0.1", "-p", &place.port.to_string()]);
            command
        });
        let keys = KeyAdmin::new(&server.url());
        Self { server, keys }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What the customer does to keys.
    #[must_use]
    pub fn keys(&self) -> &KeyAdmin {
        &self.keys
    }
}
