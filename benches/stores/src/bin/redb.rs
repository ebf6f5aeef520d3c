//! redb on a file that is never flushed to the disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use darner::broker::record::Record;
use redb::{ReadableDatabase as _, ReadableTable as _};
use stores::{Change, Engine};

#[derive(Debug)]
struct Unflushed(Mutex<File>);

impl redb::StorageBackend for Unflushed {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("one thread").metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.0.lock().expect("one thread").read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().expect("one thread").set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.0.lock().expect("one thread").write_all_at(data, offset)
    }
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("records");

struct Redb(redb::Database);

impl Engine for Redb {
    fn open(folder: &Path) -> Result<Self, String> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(folder.join("redb"));
        let backend = Unflushed(Mutex::new(file.map_err(|error| error.to_string())?));
        redb::Builder::new().set_cache_size(8 << 20).create_with_backend(backend).map(Self).map_err(|error| error.to_string())
    }

    fn write(&mut self, records: Vec<Record>) {
        let transaction = self.0.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for record in &records {
                match stores::change(record) {
                    Change::Put(key, value) => drop(table.insert(key.as_slice(), value.as_slice()).expect("written")),
                    Change::Delete(key) => drop(table.remove(key.as_slice()).expect("written")),
                }
            }
        }
        transaction.commit().expect("committed");
    }

    fn read(&mut self) -> Result<Vec<Record>, String> {
        let read = || -> Result<Vec<Record>, redb::Error> {
            let mut records = Vec::new();
            for entry in self.0.begin_read()?.open_table(TABLE)?.iter()? {
                let (_, value) = entry?;
                records.extend(postcard::from_bytes::<Record>(value.value()));
            }
            Ok(records)
        };
        read().map_err(|error| error.to_string())
    }
}

fn main() {
    stores::run::<Redb>();
}
