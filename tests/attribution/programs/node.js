// Usage: node node.js HELPER URL, with NODE_PATH where pg lies
const { Pool } = require("pg");
const { withContext, transaction, savepoint } = require(process.argv[2]);

const pool = new Pool({ connectionString: process.argv[3], max: 1 });
const add = (client, id) => client.query("INSERT INTO t VALUES ($1)", [id]);
const fail = async () => { throw new Error("taken back"); };
const caught = (work) => work.catch((error) => { if (error.message !== "taken back") throw error; });

(async () => {
  await withContext({ actor_id: "ann", reason: "first" }, () =>
    transaction(pool, async (client) => { await add(client, 1); await add(client, 2); }));
  await add(pool, 3);
  await caught(withContext({ actor_id: "bob" }, () =>
    transaction(pool, async (client) => { await add(client, 4); await fail(); })));
  await transaction(pool, (client) => add(client, 5));
  await withContext({ actor_id: "cleo" }, async () => {
    await transaction(pool, async (client) => {
      await add(client, 6);
      await caught(savepoint(client, async () => { await add(client, 7); await fail(); }));
      await add(client, 8);
    });
    await transaction(pool, (client) => add(client, 9));
  });
  await pool.end();
})().catch((error) => { console.error(error); process.exit(1); });
