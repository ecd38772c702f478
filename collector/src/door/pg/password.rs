//! The password of the one user.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use pgwire::api::auth::sasl::scram::gen_salted_password;
use pgwire::api::auth::{AuthSource, LoginInfo, Password};
use pgwire::error::PgWireResult;

use super::NAME;
use crate::Error;

/// Rounds of PBKDF2, as PostgreSQL's own default (RFC 7677 asks for 4096).
pub const ITERATIONS: usize = 4096;
/// Random bytes of a password that is made here, and of the salt.
const RANDOM: usize = 24;

/// What a login is checked against.
pub struct Secret {
    salt: Vec<u8>,
    salted: Vec<u8>,
    /// For names that do not exist: the exchange goes on and fails at its end,
    /// so that nobody learns which names exist.
    nobody: Vec<u8>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[async_trait]
impl AuthSource for Secret {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let salted = if login.user() == Some(NAME) {
            &self.salted
        } else {
            &self.nobody
        };
        Ok(Password::new(Some(self.salt.clone()), salted.clone()))
    }
}

/// Reads the password, or makes `<data_dir>/pg.password` (mode 0600) at the
/// first start.
///
/// # Errors
/// The file can't be read or made, or is empty.
pub fn read(file: Option<&Path>, data_dir: &Path) -> Result<Secret, Error> {
    let made = data_dir.join("pg.password");
    let path: PathBuf = file.map_or_else(|| made.clone(), Path::to_path_buf);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound && file.is_none() => {
            make(&made).map_err(Error::io("make", &made))?
        }
        other => other.map_err(|e| Error::Config {
            key: "pg_password_file",
            problem: format!("{}: {e}", path.display()),
        })?,
    };
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Error::Config {
            key: "pg_password_file",
            problem: format!(
                "{} is empty; write a password into it, or remove it to have one made",
                path.display()
            ),
        });
    }
    let random = || random().map_err(Error::io("read", Path::new("/dev/urandom")));
    let salt = random()?;
    Ok(Secret {
        salted: gen_salted_password(password, &salt, ITERATIONS),
        nobody: random()?,
        salt,
    })
}

/// Written beside and renamed: a reader never sees half a password.
fn make(path: &Path) -> std::io::Result<String> {
    let text: String = random()?.iter().map(|b| format!("{b:02x}")).collect();
    let temporary = path.with_extension("password.tmp");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(text)
}

fn random() -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; RANDOM];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
