//! PostgreSQL 17 in this process, for `banyan up` without a database server: the `pglite-oxide` crate, which runs
//! PostgreSQL compiled to WebAssembly on ordinary files, behind a Unix socket that only this user can reach.
//!
//! What it is not: it serves one connection at a time (the next one waits until the first has closed), enforces no
//! `statement_timeout`, and never calls `fsync`: what was committed survives the death of the process, not that of the
//! machine. For more, give `banyan` the URL of a server.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pglite_oxide::PgliteProxy;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// How long [`Embedded::stop`] waits for the last connection to close.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// PostgreSQL's name for its socket; the port is part of it and means nothing else.
const SOCKET: &str = ".s.PGSQL.5432";

/// A running PostgreSQL. Dropping it lets the connection that is open run on and takes no new one.
pub struct Embedded {
    url: String,
    socket: PathBuf,
    stopping: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("{0} is in use by another process: stop that one, or choose another data directory")]
    InUse(PathBuf),
    #[error("{0}")]
    Io(String, #[source] io::Error),
    #[error("the database in {path} cannot be opened: {reason}")]
    Open { path: PathBuf, reason: String },
    #[error("it did not stop within {STOP_TIMEOUT:?}: a connection is still open")]
    StillInUse,
}

impl Embedded {
    /// Opens the database in `folder`, made when it is not there, and accepts connections when this returns.
    ///
    /// # Errors
    /// [`EmbeddedError::InUse`] when another process has it open; otherwise what could not be opened.
    pub async fn start(folder: &Path) -> Result<Self, EmbeddedError> {
        let folder = folder.to_owned();
        match tokio::task::spawn_blocking(move || start(&folder)).await {
            Ok(started) => started,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// For a pool of one connection.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the open connection has closed, then gives the folder free. Close the pool first.
    ///
    /// # Errors
    /// [`EmbeddedError::StillInUse`]; nothing that was committed is lost then either.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.begin_stop();
        match tokio::time::timeout(STOP_TIMEOUT, &mut self.ended).await {
            // Also when the sender is gone: then the thread is.
            Ok(_) => Ok(()),
            Err(_) => Err(EmbeddedError::StillInUse),
        }
    }

    fn begin_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread if it waits for a connection. If that fails, it does not.
        let _ = UnixStream::connect(&self.socket);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

fn start(folder: &Path) -> Result<Embedded, EmbeddedError> {
    let io = |doing: String| move |error| EmbeddedError::Io(doing, error);
    fs::create_dir_all(folder).map_err(io(format!("cannot make {}", folder.display())))?;
    let lock = lock(folder)?;
    let root = folder.join("pglite");
    pglite_oxide::install_into(&root)
        .map_err(|error| EmbeddedError::Open { path: folder.to_owned(), reason: format!("{error:#}") })?;
    let (sockets, temporary) = socket_folder(folder).map_err(io("cannot make a folder for the socket".to_owned()))?;
    let socket = sockets.join(SOCKET);
    let listener = listen(&socket).map_err(io(format!("cannot listen on {}", socket.display())))?;
    let url = format!("postgresql://postgres@localhost/postgres?host={}&sslmode=disable", sockets.display());

    let stopping = Arc::new(AtomicBool::new(false));
    let (end, ended) = oneshot::channel();
    let server = Server {
        proxy: PgliteProxy::new(root),
        listener,
        stopping: stopping.clone(),
        _lock: lock,
        _temporary: temporary,
    };
    // PostgreSQL blocks its thread, so it gets one that is not the runtime's.
    let spawned = thread::Builder::new().name("embedded-postgres".to_owned()).spawn(move || {
        server.serve();
        drop(server);
        let _ = end.send(());
    });
    spawned.map_err(io("cannot start a thread".to_owned()))?;
    Ok(Embedded { url, socket, stopping, ended })
}

/// One process at a time: two would destroy each other's files. Ends with the process, however that ends.
fn lock(folder: &Path) -> Result<File, EmbeddedError> {
    let path = folder.join("lock");
    let doing = |error| EmbeddedError::Io(format!("cannot lock {}", path.display()), error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(doing)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(doing(error)),
    }
}

/// A folder that only this user can enter: in the data where its path can be one of a socket (about a hundred bytes) and
/// stands in a URL as it is, else a temporary one.
fn socket_folder(folder: &Path) -> io::Result<(PathBuf, Option<TempDir>)> {
    const LENGTH_MAX: usize = 100;
    let path = folder.canonicalize()?.join("socket");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.join(SOCKET).as_os_str().len() <= LENGTH_MAX
        && path.as_os_str().as_encoded_bytes().iter().all(|b| plain(*b))
    {
        DirBuilder::new().mode(0o700).recursive(true).create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        return Ok((path, None));
    }
    let temporary = tempfile::Builder::new().prefix("banyan-").tempdir()?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

/// The caller holds the lock, so a socket that is there already is what a killed process has left.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

struct Server {
    proxy: PgliteProxy,
    listener: UnixListener,
    stopping: Arc<AtomicBool>,
    _lock: File,
    _temporary: Option<TempDir>,
}

impl Server {
    /// One connection after another. A connection that ends badly, or takes PostgreSQL down with it, costs itself only:
    /// the next one gets a fresh PostgreSQL, which recovers from its log like after any crash.
    fn serve(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            let one = thread::scope(|scope| scope.spawn(|| self.proxy.accept_unix_once(&self.listener)).join());
            match one {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "a connection to the embedded PostgreSQL broke")
                }
                Err(_) => tracing::error!("the embedded PostgreSQL crashed; it restarts with the next connection"),
            }
        }
    }
}
