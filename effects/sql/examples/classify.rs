//! How long `analyze` takes for a statement, over a generated mix: JSON on standard output.
//!
//! `cargo run --release -p reprieve-effects-sql --example classify`

use std::{io::Write as _, time::Instant};

use reprieve_effects_sql::analyze;

const STATEMENTS: usize = 10_000;
const PASSES: usize = 5;

fn main() -> std::io::Result<()> {
    let texts: Vec<String> = (0..STATEMENTS).map(text).collect();
    let mut best = vec![u64::MAX; texts.len()];
    for _ in 0..PASSES {
        for (text, best) in texts.iter().zip(&mut best) {
            let began = Instant::now();
            let analysis = std::hint::black_box(analyze(std::hint::black_box(text)));
            let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            drop(analysis);
            *best = nanos.min(*best);
        }
    }
    best.sort_unstable();
    let at = |percent: usize| best.get(best.len() * percent / 100).copied().unwrap_or_default();
    let report = serde_json::json!({
        "statements": texts.len(),
        "mean_bytes": texts.iter().map(String::len).sum::<usize>() / texts.len(),
        "p50_ns": at(50),
        "p90_ns": at(90),
        "p99_ns": at(99),
        "mean_ns": best.iter().sum::<u64>() / best.len() as u64,
    });
    writeln!(std::io::stdout(), "{report}")
}

/// The mix of `facts/postgres.md` section 2.2: reads of several shapes, writes, long lists, definitions, transactions.
fn text(n: usize) -> String {
    match n % 20 {
        0..4 => format!("SELECT id, name, total FROM orders WHERE id = {n} AND status = 'open' ORDER BY created_at DESC LIMIT 20"),
        4..6 => "SELECT * FROM users WHERE email = $1".to_owned(),
        6..8 => format!(
            "SELECT o.id, c.name, sum(i.price * i.quantity) AS total FROM orders o JOIN customers c ON c.id = o.customer_id \
             LEFT JOIN items i ON i.order_id = o.id WHERE o.created_at > now() - interval '{} days' GROUP BY 1, 2 HAVING count(*) > 1",
            n % 90
        ),
        8 => "WITH recent AS (SELECT id, row_number() OVER (PARTITION BY customer_id ORDER BY created_at DESC) AS rank FROM orders) \
              SELECT * FROM recent WHERE rank = 1"
            .to_owned(),
        9..12 => format!("INSERT INTO orders (customer_id, total, note) VALUES ({n}, 10.5, 'note {n}') RETURNING id"),
        12 => {
            let rows: Vec<_> = (0..20).map(|row| format!("({n}, {row}, 'item {row}')")).collect();
            format!(
                "INSERT INTO items (order_id, position, name) VALUES {} ON CONFLICT (order_id, position) DO UPDATE SET name = excluded.name",
                rows.join(", ")
            )
        }
        13..15 => format!("UPDATE orders SET total = total * 1.1, updated_at = now() WHERE id = {n} AND status <> 'paid'"),
        15 => format!("DELETE FROM sessions WHERE expires_at < now() AND user_id = {n}"),
        16 => {
            let ids: Vec<_> = (0..n % 200 + 1).map(|id| id.to_string()).collect();
            format!("SELECT * FROM orders WHERE id IN ({})", ids.join(", "))
        }
        17 => "ALTER TABLE orders ADD COLUMN note text DEFAULT 'x' NOT NULL".to_owned(),
        18 => "BEGIN".to_owned(),
        _ => "COMMIT".to_owned(),
    }
}
