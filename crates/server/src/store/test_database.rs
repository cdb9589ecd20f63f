//! Databases for tests, one for each test: SQLite in a folder, or a PostgreSQL database that goes with the test.

use std::sync::atomic::{AtomicU64, Ordering};

use postgres::{Client, NoTls};

use super::{OnCommit, PostgresAddress, Store, StoreAddress};

/// Names a PostgreSQL server on which tests may make databases, as `scripts/test` starts one.
const SERVER: &str = "FARRIER_TEST_POSTGRES";
/// `postgres` makes every test that has no opinion use that database.
const CHOICE: &str = "FARRIER_TEST_STORE";

/// A database of one test; dropping it removes it.
pub(crate) struct TestDatabase {
    folder: tempfile::TempDir,
    postgres: Option<(String, String)>,
}

impl TestDatabase {
    /// SQLite, unless the environment chooses PostgreSQL.
    pub(crate) fn chosen() -> Self {
        match std::env::var(CHOICE).as_deref() {
            Ok("postgres") => Self::postgres(),
            Ok(_) | Err(_) => Self::sqlite(),
        }
    }

    pub(crate) fn sqlite() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), postgres: None }
    }

    pub(crate) fn postgres() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let server = std::env::var(SERVER).unwrap_or_else(|_| {
            panic!("this test needs {SERVER}: the URL of a PostgreSQL server that tests may use; ./scripts/test starts one")
        });
        let name = format!("farrier_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        run_on(&server, format!("DROP DATABASE IF EXISTS {name}"));
        run_on(&server, format!("CREATE DATABASE {name}"));
        Self { folder: tempfile::tempdir().unwrap(), postgres: Some((server, name)) }
    }

    /// Both.
    pub(crate) fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    /// The URL of the PostgreSQL database.
    pub(crate) fn url(&self) -> Option<String> {
        let (server, name) = self.postgres.as_ref()?;
        Some(url_of(server, name))
    }

    pub(crate) fn address(&self) -> StoreAddress {
        match self.url() {
            Some(url) => StoreAddress::Postgres(Box::new(url.parse::<PostgresAddress>().unwrap())),
            None => StoreAddress::Sqlite(self.folder.path().join("farrier.db")),
        }
    }

    pub(crate) fn open(&self, on_commit: OnCommit) -> Store {
        Store::open(&self.address(), on_commit).unwrap()
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Runs statements outside of any store.
    pub(crate) fn run(&self, sql: String) {
        match &self.postgres {
            Some((server, name)) => run_on(&url_of(server, name), sql),
            None => {
                let file = rusqlite::Connection::open(self.folder.path().join("farrier.db")).unwrap();
                file.execute_batch(&sql).unwrap();
            }
        }
    }

    /// Ends all connections to the PostgreSQL database, as its restart does.
    pub(crate) fn end_connections(&self) {
        if let Some((server, name)) = &self.postgres {
            let ended = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
            );
            run_on(server, ended);
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some((server, name)) = self.postgres.take() {
            run_on(&server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

/// The server's URL ends with a database or a query, and names no other database.
fn url_of(server: &str, database: &str) -> String {
    let (base, query) =
        server.split_once('?').map_or((server, String::new()), |(base, query)| (base, format!("?{query}")));
    let (host, _) = base.rsplit_once('/').unwrap();
    format!("{host}/{database}{query}")
}

/// On a thread of its own: the client brings its own runtime, and tests are in another.
fn run_on(url: &str, sql: String) {
    let url = url.to_owned();
    let ran = std::thread::spawn(move || Client::connect(&url, NoTls)?.batch_execute(&sql)).join().unwrap();
    if let Err(error) = ran {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        panic!("{SERVER} cannot be used: {error}: {source}");
    }
}
