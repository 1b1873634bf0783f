# Who and why, for Ruby on Rails (ActiveRecord 6.1 and later): copy it to config/initializers/audit_context.rb.
#
#   class ApplicationController < ActionController::Base
#     before_action do
#       AuditContext.set(actor_id: current_user&.id, request_id: request.request_id, ip: request.remote_ip)
#     end
#   end
#
#   AuditContext.set(actor_id: 7, reason: "refund") { order.update!(state: "refunded") }
#
# Rails resets it between requests and jobs. Every transaction that ActiveRecord begins, also the one around a single `save`, says it before
# its first statement; rolled back to a savepoint, it still holds. `update_all` and other statements outside a transaction do not say it:
# put `transaction do … end` around them.
require "active_support/current_attributes"

class AuditContext < ActiveSupport::CurrentAttributes
  attribute :actor_id, :actor, :reason, :request_id, :ip, :source

  # ActiveRecord begins a transaction in the database when the first statement in it comes.
  module Transaction
    def materialize!
      super
      said = AuditContext.attributes.compact
      return if said.empty?

      connection.execute("SELECT cdc_audit.set_context(#{connection.quote(said.to_json)}::jsonb)", "Audit context")
    end
  end
end

ActiveSupport.on_load(:active_record) do
  ActiveRecord::ConnectionAdapters::RealTransaction.prepend(AuditContext::Transaction)
end
