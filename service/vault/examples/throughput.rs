//! How fast a vault is here: one large object each way, and packs of small entries, with the disk's own speed beside them.
//!
//! `cargo run --release -p reprieve-vault --example throughput [STORE] [MEGABYTES]`; the store is a new directory unless
//! one is named (`s3://…` takes its credentials from the environment).

use std::{
    error::Error,
    fs::{self, File},
    io::Write as _,
    time::Instant,
};

use reprieve_vault::{Pack, Vault, VaultKey, VaultOptions};

const MEGABYTE: usize = 1024 * 1024;
const PACKS: u64 = 200;
const ENTRIES: u64 = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = tempfile::tempdir()?;
    let store = arguments.first().cloned().unwrap_or_else(|| format!("file:{}", directory.path().join("vault").display()));
    let size = arguments.get(1).map_or(Ok(200), |text| text.parse::<usize>())? * MEGABYTE;
    let vault = Vault::open(&VaultOptions::new(&store, VaultKey::from_bytes(&[1; 32]))?)?;
    let rows = rows(size);

    let began = Instant::now();
    let mut file = File::create(directory.path().join("plain"))?;
    file.write_all(&rows)?;
    file.sync_all()?;
    report("plain write and fsync", size, began);

    let began = Instant::now();
    let object = vault.put(&rows[..]).await?;
    report("put", size, began);
    println!("{:<24} {:.2} of the plain size", "stored", object.stored_bytes as f64 / object.plain_bytes as f64);

    let began = Instant::now();
    let mut reading = vault.get(&object).await?;
    let mut had = 0;
    while let Some(piece) = reading.next().await {
        had += piece?.len();
    }
    report("get, verified", had, began);

    let began = Instant::now();
    for count in 0..PACKS {
        let file_path = directory.path().join(format!("fsync-{count}"));
        let mut file = File::create(&file_path)?;
        file.write_all(&rows[..4096])?;
        file.sync_all()?;
        File::open(directory.path())?.sync_all()?;
        fs::remove_file(file_path)?;
    }
    rate("plain durable files", PACKS, began);

    let began = Instant::now();
    let mut last = None;
    for count in 0..PACKS {
        let mut pack = Pack::new();
        for entry in 0..ENTRIES {
            let at = (count * ENTRIES + entry) as usize * 300 % (size - 300);
            pack.add(entry, &rows[at..at + 300])?;
        }
        last = Some(vault.put_pack(pack).await?);
    }
    rate("packs of 1,000 entries", PACKS, began);
    rate("entries of 300 bytes", PACKS * ENTRIES, began);

    let pack = last.ok_or("no pack was put")?;
    let began = Instant::now();
    for entry in 0..PACKS {
        vault.read_entry(&pack, entry * 4).await?;
    }
    rate("single entries read", PACKS, began);
    Ok(())
}

/// Something like rows of a table: it compresses about as they do.
fn rows(bytes: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes + 256);
    let mut id = 1u64;
    while all.len() < bytes {
        let mixed = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        all.extend_from_slice(
            format!(
                "{id}\tcustomer-{}@example.org\t{}.{:02}\t2026-0{}-{:02}\t{:016x}\tconfirmed\n",
                mixed % 50_000,
                mixed >> 52,
                mixed % 100,
                mixed % 9 + 1,
                mixed % 28 + 1,
                mixed
            )
            .as_bytes(),
        );
        id += 1;
    }
    all.truncate(bytes);
    all
}

fn report(what: &str, bytes: usize, began: Instant) {
    println!("{what:<24} {:.0} MB/s", bytes as f64 / MEGABYTE as f64 / began.elapsed().as_secs_f64());
}

fn rate(what: &str, count: u64, began: Instant) {
    println!("{what:<24} {:.0} a second", count as f64 / began.elapsed().as_secs_f64());
}
