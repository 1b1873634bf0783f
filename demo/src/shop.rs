//! The shop: its tables, and ten scripted seconds.

use std::time::{Duration, Instant};

use anyhow::Result;
use audit_testkit::Postgres;

/// The order whose trail is shown in the end: Ann's, placed in the first second.
pub const ORDER: &str = "3";

/// Who undoes Dave's mistake: a login of her own, which may change orders.
pub const ERIN: &str = "CREATE ROLE erin LOGIN; GRANT USAGE ON SCHEMA cdc_audit TO erin;
    GRANT SELECT, UPDATE ON orders TO erin; GRANT SELECT ON customers, order_lines TO erin";

/// `REPLICA IDENTITY FULL` makes PostgreSQL send old rows too; without it a version knows only what came after.
pub const SCHEMA: &str = "
    CREATE TABLE customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, email text, password_digest text);
    CREATE TABLE products (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, price numeric(10,2) NOT NULL, updated_at timestamptz);
    CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, status text NOT NULL, total numeric(10,2) NOT NULL, updated_at timestamptz);
    CREATE TABLE order_lines (order_id int REFERENCES orders ON DELETE CASCADE, line int, product_id int NOT NULL REFERENCES products, quantity int NOT NULL, PRIMARY KEY (order_id, line));
    CREATE TABLE carts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, product_id int NOT NULL REFERENCES products);
    ALTER TABLE customers REPLICA IDENTITY FULL;
    ALTER TABLE products REPLICA IDENTITY FULL;
    ALTER TABLE orders REPLICA IDENTITY FULL;
    ALTER TABLE order_lines REPLICA IDENTITY FULL;
    ALTER TABLE carts REPLICA IDENTITY FULL;
    INSERT INTO customers (name, email, password_digest) VALUES ('Ann', 'ann@example.com', '$2b$12$first'), ('Bob', 'bob@example.com', '$2b$12$second');
    INSERT INTO products (name, price) VALUES ('Tea', 4.50), ('Pot', 125.00);
    INSERT INTO orders (customer_id, status, total) VALUES (1, 'delivered', 4.50), (2, 'delivered', 9.00);
    INSERT INTO order_lines VALUES (1, 1, 1, 1), (2, 1, 1, 2);
";

/// What somebody does, and when.
struct Deed {
    at: Duration,
    /// `actor_id` and `reason` of the transaction's context; none for whoever goes past the application.
    who: Option<(&'static str, &'static str)>,
    sql: &'static str,
}

const fn deed(at_millis: u64, who: (&'static str, &'static str), sql: &'static str) -> Deed {
    Deed { at: Duration::from_millis(at_millis), who: Some(who), sql }
}

const STORY: [Deed; 8] = [
    deed(
        300,
        ("customer:ann", "checkout"),
        "INSERT INTO orders (customer_id, status, total) VALUES (1, 'placed', 125.00);
         INSERT INTO order_lines VALUES (3, 1, 2, 1);",
    ),
    deed(1500, ("payments", "card accepted"), "UPDATE orders SET status = 'paid', updated_at = now() WHERE id = 3;"),
    deed(
        3000,
        ("staff:carla", "the decimal point had slipped"),
        "UPDATE products SET price = 12.50, updated_at = now() WHERE name = 'Pot';
         UPDATE orders SET total = 12.50 WHERE id = 3;",
    ),
    Deed { at: Duration::from_millis(5000), who: None, sql: "ALTER TABLE orders ADD COLUMN tracking text;" },
    deed(
        6000,
        ("warehouse", "handed to the carrier"),
        "UPDATE orders SET status = 'shipped', tracking = 'DX-20417', updated_at = now() WHERE id = 3;",
    ),
    deed(7000, ("staff:erin", "Bob asked to be forgotten"), "DELETE FROM orders WHERE id = 2;"),
    deed(8000, ("nightly", "carts of yesterday"), "TRUNCATE carts;"),
    deed(9500, ("staff:dave", "close my test order"), "UPDATE orders SET status = 'cancelled', updated_at = now();"),
];

const LIFE: Duration = Duration::from_secs(10);

/// Between two orders of the crowd, who keep the shop busy around the story.
const PAUSE: Duration = Duration::from_millis(100);

pub fn live(server: &Postgres, database: &str) -> Result<()> {
    let begun = Instant::now();
    let mut story = STORY.iter().peekable();
    let mut crowd = 0_u32;
    while begun.elapsed() < LIFE {
        if let Some(deed) = story.next_if(|deed| begun.elapsed() >= deed.at) {
            if let Some((who, why)) = deed.who {
                println!("   {:>4.1} s  {who}: {why}", begun.elapsed().as_secs_f64());
            } else {
                println!("   {:>4.1} s  {}", begun.elapsed().as_secs_f64(), deed.sql);
            }
            server.try_execute(database, &transaction(deed.who, deed.sql))?;
        } else if begun.elapsed() > Duration::from_millis(500) {
            crowd += 1;
            server.try_execute(database, &order(crowd))?;
        }
        std::thread::sleep(PAUSE);
    }
    println!("   and {crowd} orders of the crowd");
    Ok(())
}

/// The application says who acts in the transaction that writes: `set_context` puts it into the WAL.
fn transaction(who: Option<(&str, &str)>, sql: &str) -> String {
    let context = who.map(|(who, why)| {
        let context = serde_json::json!({ "actor_id": who, "reason": why });
        format!("SELECT cdc_audit.set_context('{context}');")
    });
    format!("BEGIN; {} {sql} COMMIT;", context.unwrap_or_default())
}

fn order(number: u32) -> String {
    let customer = 1 + number % 2;
    let who = ["customer:ann", "customer:bob"][(number % 2) as usize];
    let sql = format!(
        "INSERT INTO carts (customer_id, product_id) VALUES ({customer}, 1);
         WITH placed AS (INSERT INTO orders (customer_id, status, total) VALUES ({customer}, 'placed', 4.50) RETURNING id)
         INSERT INTO order_lines SELECT id, 1, 1, {} FROM placed;",
        1 + number % 3
    );
    transaction(Some((who, "checkout")), &sql)
}
