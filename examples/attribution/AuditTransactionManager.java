import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.concurrent.Callable;

import javax.sql.DataSource;

import org.springframework.jdbc.datasource.ConnectionHolder;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.transaction.CannotCreateTransactionException;
import org.springframework.transaction.TransactionDefinition;
import org.springframework.transaction.support.TransactionSynchronizationManager;

/**
 * Who and why, for Spring (6 and later) with JDBC: copy it into the project and make it the transaction manager.
 *
 * <pre>
 * &#64;Bean PlatformTransactionManager transactionManager(DataSource source) { return new AuditTransactionManager(source); }
 *
 * AuditTransactionManager.saying("{\"actor_id\": 7, \"reason\": \"refund\"}", () -> orders.refund(42));
 * </pre>
 *
 * Every transaction that is not read-only says it when it begins; one that is nested by a savepoint belongs to it. For JPA override
 * {@code doBegin} of {@code JpaTransactionManager} in the same way. Without Spring call {@link #say} behind {@code setAutoCommit(false)}.
 */
public class AuditTransactionManager extends DataSourceTransactionManager {
    private static final ThreadLocal<String> SAID = new ThreadLocal<>();

    public AuditTransactionManager(DataSource source) {
        super(source);
    }

    /** Runs {@code work} in the name of a context, a JSON object: actor_id, actor, reason, request_id, ip, source, anything else. */
    public static <T> T saying(String json, Callable<T> work) throws Exception {
        String before = SAID.get();
        SAID.set(json);
        try {
            return work.call();
        } finally {
            if (before == null) SAID.remove(); else SAID.set(before);
        }
    }

    @Override
    protected void doBegin(Object transaction, TransactionDefinition definition) {
        super.doBegin(transaction, definition);
        if (definition.isReadOnly()) return;
        var holder = (ConnectionHolder) TransactionSynchronizationManager.getResource(obtainDataSource());
        try {
            say(holder.getConnection());
        } catch (SQLException error) {
            doCleanupAfterCompletion(transaction);
            throw new CannotCreateTransactionException("the audit context cannot be set", error);
        }
    }

    /** Says what this thread says, in the connection's transaction. */
    public static void say(Connection connection) throws SQLException {
        if (SAID.get() == null) return;
        try (PreparedStatement statement = connection.prepareStatement("SELECT cdc_audit.set_context(?::jsonb)")) {
            statement.setString(1, SAID.get());
            statement.execute();
        }
    }
}
