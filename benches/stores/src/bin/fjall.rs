//! fjall, committing to the operating system.

use std::path::Path;

use darner::broker::record::Record;
use stores::{Change, Engine};

struct Fjall(fjall::Database, fjall::Keyspace);

impl Engine for Fjall {
    fn open(folder: &Path) -> Result<Self, String> {
        let open = || -> fjall::Result<Self> {
            let database = fjall::Database::builder(folder.join("fjall")).cache_size(8 << 20).open()?;
            let keyspace = database.keyspace("records", fjall::KeyspaceCreateOptions::default)?;
            Ok(Self(database, keyspace))
        };
        open().map_err(|error| error.to_string())
    }

    fn write(&mut self, records: Vec<Record>) {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::Buffer));
        for record in &records {
            match stores::change(record) {
                Change::Put(key, value) => batch.insert(&self.1, key, value),
                Change::Delete(key) => batch.remove(&self.1, key),
            }
        }
        batch.commit().expect("committed");
    }

    fn read(&mut self) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        for entry in self.1.iter() {
            let value = entry.value().map_err(|error| error.to_string())?;
            records.extend(postcard::from_bytes::<Record>(&value));
        }
        Ok(records)
    }
}

fn main() {
    stores::run::<Fjall>();
}
