//! SQLite with a write-ahead log, for reference.

use std::path::Path;

use darner::broker::record::Record;
use stores::{Change, Engine};

struct Sqlite(rusqlite::Connection);

impl Engine for Sqlite {
    fn open(folder: &Path) -> Result<Self, String> {
        let open = || -> rusqlite::Result<Self> {
            let connection = rusqlite::Connection::open(folder.join("sqlite"))?;
            let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;";
            let table = "CREATE TABLE IF NOT EXISTS records (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID;";
            connection.execute_batch(&format!("{pragmas}{table}"))?;
            Ok(Self(connection))
        };
        open().map_err(|error| error.to_string())
    }

    fn write(&mut self, records: Vec<Record>) {
        let transaction = self.0.transaction().expect("a transaction");
        for record in &records {
            match stores::change(record) {
                Change::Put(key, value) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO records VALUES (?, ?)")
                    .and_then(|mut statement| statement.execute((key, value))),
                Change::Delete(key) => {
                    transaction.prepare_cached("DELETE FROM records WHERE k = ?").and_then(|mut statement| statement.execute((key,)))
                }
            }
            .expect("written");
        }
        transaction.commit().expect("committed");
    }

    fn read(&mut self) -> Result<Vec<Record>, String> {
        let read = || -> rusqlite::Result<Vec<Record>> {
            let mut statement = self.0.prepare("SELECT v FROM records")?;
            let mut rows = statement.query(())?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.extend(postcard::from_bytes::<Record>(&row.get::<_, Vec<u8>>(0)?));
            }
            Ok(records)
        };
        read().map_err(|error| error.to_string())
    }
}

fn main() {
    stores::run::<Sqlite>();
}
