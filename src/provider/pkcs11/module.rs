//! PKCS#11 modules, as one process shares them.
//!
//! A module has one state for all of a process: it is initialised once, and who finalises it ends everybody's
//! sessions. So it is loaded once for each path, initialised when it is not yet, and never finalised here.
//! Imports: `provider`, `provider::pkcs11::{classify, login}`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Answer, RvError};

use super::super::ProviderError;
use super::classify::Fault;
use super::login::LoginMemory;

/// A loaded module. All providers of a process on one path have the same.
pub(super) struct Module {
    pub(super) context: Pkcs11,
    path: PathBuf,
    /// `C_Initialize` may not run twice at once.
    initialising: Mutex<()>,
    logins: Mutex<Vec<(String, Arc<Mutex<LoginMemory>>)>>,
}

impl Module {
    /// Loads the shared library at `path`, unless this process has it from here already. Runs no function of PKCS#11 that
    /// could need the token.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, ProviderError> {
        static LOADED: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());
        let mut loaded = lock(&LOADED);
        if let Some(module) = loaded.iter().find(|module| module.path == path) {
            return Ok(Arc::clone(module));
        }
        let context = Pkcs11::new(path).map_err(|_| {
            let path = path.display();
            ProviderError::misconfigured(&format!("{path} cannot be loaded, or is no PKCS#11 module"))
        })?;
        let module = Arc::new(Self {
            context,
            path: path.to_owned(),
            initialising: Mutex::new(()),
            logins: Mutex::new(Vec::new()),
        });
        loaded.push(Arc::clone(&module));
        Ok(module)
    }

    /// Initialises the module, unless it is. A child that was forked, and a process in which somebody finalised the module,
    /// comes here again.
    pub(super) fn initialise(&self) -> Result<(), Fault> {
        let _alone = lock(&self.initialising);
        match self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Answer::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Err(answer) => Err(answer.into()),
        }
    }

    /// What this process knows of logins to `token`, for all of its providers. One entry for each token that was ever seen.
    pub(super) fn login_memory(&self, token: &str) -> Arc<Mutex<LoginMemory>> {
        let mut logins = lock(&self.logins);
        if let Some((_, memory)) = logins.iter().find(|(known, _)| known == token) {
            return Arc::clone(memory);
        }
        let memory = Arc::new(Mutex::new(LoginMemory::default()));
        logins.push((token.to_owned(), Arc::clone(&memory)));
        memory
    }
}

/// OK after a panic elsewhere: what these mutexes guard is changed in single steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
