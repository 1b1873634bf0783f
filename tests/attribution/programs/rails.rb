# Usage: ruby rails.rb HELPER URL
require "active_record"
require File.expand_path(ARGV[0])

ActiveRecord::Base.establish_connection("#{ARGV[1]}?pool=1")

class T < ActiveRecord::Base
  self.table_name = "t"
end

AuditContext.set(actor_id: "ann", reason: "first") do
  T.transaction { [1, 2].each { |id| T.create!(id: id) } }
end
T.create!(id: 3)
AuditContext.set(actor_id: "bob") do
  T.transaction do
    T.create!(id: 4)
    raise ActiveRecord::Rollback
  end
end
T.create!(id: 5)
AuditContext.set(actor_id: "cleo") do
  T.transaction do
    T.create!(id: 6)
    T.transaction(requires_new: true) do
      T.create!(id: 7)
      raise ActiveRecord::Rollback
    end
    T.create!(id: 8)
  end
  T.create!(id: 9)
end
