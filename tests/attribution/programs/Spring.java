import java.util.concurrent.Callable;

import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.jdbc.datasource.SingleConnectionDataSource;
import org.springframework.transaction.TransactionDefinition;
import org.springframework.transaction.support.TransactionTemplate;

/** Usage: java Spring JDBC_URL */
public class Spring {
    public static void main(String[] arguments) throws Exception {
        var source = new SingleConnectionDataSource(arguments[0], "postgres", "", true);
        source.setAutoCommit(true);
        var jdbc = new JdbcTemplate(source);
        var manager = new AuditTransactionManager(source);
        var outer = new TransactionTemplate(manager);
        var nested = new TransactionTemplate(manager);
        nested.setPropagationBehavior(TransactionDefinition.PROPAGATION_NESTED);

        saying("{\"actor_id\": \"ann\", \"reason\": \"first\"}", () -> outer.execute(status -> { add(jdbc, 1); add(jdbc, 2); return null; }));
        add(jdbc, 3);
        saying("{\"actor_id\": \"bob\"}", () -> outer.execute(status -> { add(jdbc, 4); status.setRollbackOnly(); return null; }));
        outer.execute(status -> { add(jdbc, 5); return null; });
        saying("{\"actor_id\": \"cleo\"}", () -> {
            outer.execute(status -> {
                add(jdbc, 6);
                nested.execute(inner -> { add(jdbc, 7); inner.setRollbackOnly(); return null; });
                add(jdbc, 8);
                return null;
            });
            return outer.execute(status -> { add(jdbc, 9); return null; });
        });
        source.destroy();
    }

    static void add(JdbcTemplate jdbc, int id) {
        jdbc.update("INSERT INTO t VALUES (?)", id);
    }

    static void saying(String json, Callable<Object> work) throws Exception {
        AuditTransactionManager.saying(json, work);
    }
}
