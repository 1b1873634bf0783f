// Who and why, for node-postgres (pg 8): copy it into the project.
//
//   const { withContext, transaction, savepoint } = require("./audit_context");
//
//   app.use((request, response, next) =>
//     withContext({ actor_id: request.user?.id, request_id: request.id, ip: request.ip }, next));
//
//   await transaction(pool, async (client) => {
//     await client.query("UPDATE orders SET state = 'refunded' WHERE id = $1", [42]);
//   });
//
// `transaction` says it right behind BEGIN. With `pool.query` alone there is no transaction to say it in.
const { AsyncLocalStorage } = require("node:async_hooks");

const storage = new AsyncLocalStorage();

/** Runs `work`, and all that it awaits, in the name of `context`, together with what an outer one says. */
function withContext(context, work) {
  return storage.run({ ...storage.getStore(), ...context }, work);
}

/** Runs `work(client)` in a transaction that says who and why. */
async function transaction(pool, work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query("BEGIN");
    const said = storage.getStore();
    if (said && Object.keys(said).length > 0) {
      await client.query("SELECT cdc_audit.set_context($1::jsonb)", [JSON.stringify(said)]);
    }
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK").catch((lost) => (broken = lost));
    throw error;
  } finally {
    client.release(broken);
  }
}

let savepoints = 0;

/** A transaction inside one: if `work` throws, only what it did is taken back. */
async function savepoint(client, work) {
  const name = `audit_${++savepoints}`;
  await client.query(`SAVEPOINT ${name}`);
  try {
    const result = await work(client);
    await client.query(`RELEASE SAVEPOINT ${name}`);
    return result;
  } catch (error) {
    await client.query(`ROLLBACK TO SAVEPOINT ${name}`);
    throw error;
  }
}

module.exports = { withContext, transaction, savepoint };
